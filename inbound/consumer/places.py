"""Which cloud a consumer reads from: as the settings say, or as it is told. Each is made once and kept."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

if TYPE_CHECKING:
    from inbound.settings import Settings

Where = Literal["local", "aws"]


def cloud_of(cloud: Any, settings: "Settings | Path | str | None") -> Any:
    """A cloud to read from.

    `cloud` is one already (`LocalCloud`, `AwsCloud`, or what has their methods), `"aws"`, `"local"`, or None: as the settings
    say. `settings` are Settings, the path of their file, or None: INBOUND_CONFIG, `./inbound.yaml` and the environment. With
    `"aws"` and no settings the region is the one that Lambda and the AWS tools put into the environment. Raises
    ConfigurationError.
    """
    if cloud is not None and not isinstance(cloud, str):
        return cloud
    if cloud is not None and cloud not in get_args(Where):
        raise ValueError(f"cloud is 'aws', 'local' or a cloud, not {cloud!r}")
    if cloud == "aws" and settings is None:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return _aws(region, None, os.getpid())
    loaded = _settings(settings)
    loaded = replace(loaded, cloud=cast("Where", cloud)) if cloud else loaded
    if loaded.cloud == "aws":
        return _aws(loaded.region, loaded.endpoint_url, os.getpid())
    return _local(loaded.data_dir.resolve(), loaded.account, loaded.region)


def _settings(settings: "Settings | Path | str | None") -> "Settings":
    from inbound.settings import Settings, load  # noqa: PLC0415 - pydantic takes long, and not all need it

    if isinstance(settings, Settings):
        return settings
    return load(Path(settings) if settings is not None else None, os.environ)


@cache
def _aws(region: str, endpoint_url: str | None, process: int) -> Any:  # noqa: ARG001 - a fork has no threads of its parent's
    from inbound.clients.aws import AwsCloud  # noqa: PLC0415 - boto3 takes long

    return AwsCloud(region=region, endpoint_url=endpoint_url)


@cache
def _local(data_dir: Path, account: str, region: str) -> Any:
    """Not entered: what the receiver has left in its logs and queues is the receiver's to go on with."""
    from inbound.clients.invoke import Runner  # noqa: PLC0415 - as above
    from inbound.clients.local import LocalCloud  # noqa: PLC0415

    runner = Runner({}, account=account, region=region)
    return LocalCloud(data_dir, account=account, region=region, runner=runner)
