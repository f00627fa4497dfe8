# The role that a muster server assumes in a node account to look at instances. One for each account
# whose policies write `look_up: {role: ..., external_id: ...}`.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "OnlyTheMusterServer"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = [var.server_role_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "sts:ExternalId"
      values   = [var.external_id]
    }
  }
}

data "aws_iam_policy_document" "look" {
  statement {
    sid     = "LookAtInstances"
    actions = ["ec2:DescribeInstances"]
    # The action has no resource level: with anything narrower than "*" every call is denied.
    resources = ["*"]
  }
}

resource "aws_iam_role" "verifier" {
  name                 = var.role_name
  path                 = var.role_path
  description          = "muster looks at instances that prove themselves"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  max_session_duration = 3600
  tags                 = var.tags
}

resource "aws_iam_role_policy" "look" {
  name   = "look-at-instances"
  role   = aws_iam_role.verifier.id
  policy = data.aws_iam_policy_document.look.json
}
