# An example, for the server's account: the role of the EC2 instance that runs `muster server`. It may
# assume the verifier role of the listed accounts, and nothing else.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "node_accounts" {
  description = "The accounts whose instances may join by a policy that looks at them."
  type        = list(string)
  default     = ["111122223333"]

  validation {
    condition = length(var.node_accounts) > 0 && alltrue([
      for account in var.node_accounts : can(regex("^[0-9]{12}$", account))
    ])
    error_message = "Expected at least one account number of 12 digits."
  }
}

data "aws_partition" "current" {}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "assume_verifiers" {
  statement {
    sid     = "AssumeTheVerifierRoleOfNodeAccounts"
    actions = ["sts:AssumeRole"]
    resources = [
      for account in var.node_accounts :
      "arn:${data.aws_partition.current.partition}:iam::${account}:role/muster-verifier"
    ]
  }
}

resource "aws_iam_role" "server" {
  name               = "muster-server"
  description        = "muster server"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "assume_verifiers" {
  name   = "assume-verifiers"
  role   = aws_iam_role.server.id
  policy = data.aws_iam_policy_document.assume_verifiers.json
}

resource "aws_iam_instance_profile" "server" {
  name = "muster-server"
  role = aws_iam_role.server.name
}

output "server_role_arn" {
  description = "Goes into the verifier roles' trust policies, as `server_role_arn`."
  value       = aws_iam_role.server.arn
}
