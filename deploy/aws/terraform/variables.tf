variable "server_role_arn" {
  description = "ARN of the role that the muster server runs with, in its own account."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$", var.server_role_arn))
    error_message = "Expected the ARN of a role, such as arn:aws:iam::444455556666:role/muster-server."
  }
}

variable "external_id" {
  description = "What the policy files write as `external_id`. Not a secret; the same text on both sides."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@:_/-]{2,1224}$", var.external_id))
    error_message = "Expected 2 to 1224 letters, digits and +=,.@:_/-."
  }
}

variable "role_name" {
  description = "Name of the role, as in the policy files' `look_up: {role: ...}`."
  type        = string
  default     = "muster-verifier"
}

variable "role_path" {
  description = "Path of the role. With another one than / the policy files must name it too."
  type        = string
  default     = "/"
}

variable "tags" {
  description = "Tags of the role."
  type        = map(string)
  default     = {}
}
