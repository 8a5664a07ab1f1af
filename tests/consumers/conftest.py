"""The AWS that tests here run against."""

from tests.aws import aws

__all__ = ["aws"]
