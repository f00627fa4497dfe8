output "role_arn" {
  description = "ARN of the verifier role; goes into the server role's policy."
  value       = aws_iam_role.verifier.arn
}

output "look_up_role" {
  description = "What to write as `look_up: {role: ...}` in policy files."
  value       = "arn:{partition}:iam::{account}:role${var.role_path}${var.role_name}"
}
