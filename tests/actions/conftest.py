"""The fixture of an AWS."""

from tests.aws import aws

__all__ = ["aws"]
