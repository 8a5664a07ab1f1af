"""boto3's clients and whose credentials they have: every combination of service, region and role is made once.

1. Credentials come from boto3's own chain. A role is assumed with them, by botocore's own means: it is taken anew before it
   ends, while calls go on with what is left of the old one.
2. Topics, keys and functions named by ARN, and queues, are called in their own region.
"""

import asyncio
import os
import ssl
import threading
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import boto3
import botocore.session
from botocore import exceptions as botocore_errors
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.httpsession import get_cert_path
from botocore.loaders import create_loader

from inbound.clients.sigv4 import Credentials

ROLE_SECONDS = 3600  # how long a role is assumed for: as long as one role may be assumed by another


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How calls are made: threads and so connections side by side, seconds, and tries as botocore counts them."""

    connect_seconds: float
    read_seconds: float
    tries: int
    connections: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    service: str
    region: str
    role_arn: str | None
    manners: Manners


class Clients:
    """Every client there is. `endpoint_url` is for every service."""

    def __init__(self, *, region: str, endpoint_url: str | None, manners: Manners) -> None:
        self._region, self._endpoint_url, self._manners = region, endpoint_url, manners
        self._making = threading.Lock()  # sessions are not thread-safe, clients are
        self._sessions: dict[str | None, Any] = {None: self._session_of(_new_session())}
        self._clients: dict[_Wanted, Any] = {}

    def client(
        self, service: str, *, arn: str = "", role_arn: str | None = None, manners: Manners | None = None
    ) -> Any:
        """The client for a service, in the region of `arn` if that is one. Blocks; raises botocore's errors."""
        wanted = _Wanted(service, self.region_of(arn), role_arn, manners or self._manners)
        client = self._clients.get(wanted)
        if client is None:
            with self._making:
                client = self._clients.get(wanted)
                if client is None:
                    client = self._clients[wanted] = self._make(wanted)
        return client

    def region_of(self, arn: str) -> str:
        """The region that an ARN names, else our own."""
        parts = arn.split(":")
        return parts[3] if parts[0] == "arn" and len(parts) > 5 and parts[3] else self._region  # noqa: PLR2004

    async def credentials(self, role_arn: str | None, aside: Executor) -> Credentials:
        """The current ones; what takes a call to get them is done aside. Raises botocore's errors."""
        session = self._sessions.get(role_arn)
        source = session.get_credentials() if session is not None else None
        if source is None or getattr(source, "refresh_needed", bool)():
            loop = asyncio.get_running_loop()
            frozen = await loop.run_in_executor(aside, self._frozen, role_arn)
        else:
            frozen = source.get_frozen_credentials()
        return Credentials(access_key=frozen.access_key, secret_key=frozen.secret_key, token=frozen.token)

    def trust(self) -> ssl.SSLContext:
        """The certificates that botocore would believe (AWS_CA_BUNDLE and `ca_bundle` count)."""
        bundle = self._sessions[None]._session.get_config_variable("ca_bundle")  # noqa: SLF001 - boto3 has no other way
        return _trust(bundle or get_cert_path(verify=True))

    def _frozen(self, role_arn: str | None) -> Any:
        with self._making:
            source = self._session(role_arn).get_credentials()
        if source is None:
            raise botocore_errors.NoCredentialsError
        return source.get_frozen_credentials()

    def _make(self, wanted: _Wanted) -> Any:
        return self._session(wanted.role_arn).client(
            wanted.service,
            region_name=wanted.region,
            endpoint_url=self._endpoint_url,
            config=self._config(wanted.manners),
        )

    def _session(self, role_arn: str | None) -> Any:
        session = self._sessions.get(role_arn)
        if session is None:
            inner = _new_session()
            inner.register_component("credential_provider", CredentialResolver([_Role(self._assumed(str(role_arn)))]))
            session = self._sessions[role_arn] = self._session_of(inner)
        return session

    def _session_of(self, inner: Any) -> Any:
        return boto3.session.Session(botocore_session=inner, region_name=self._region)

    def _assumed(self, role_arn: str) -> DeferredRefreshableCredentials:
        source = self._sessions[None].get_credentials()
        if source is None:
            raise botocore_errors.NoCredentialsError
        fetcher = AssumeRoleCredentialFetcher(
            self._sts,
            source,
            role_arn,
            extra_args={"RoleSessionName": "inbound", "DurationSeconds": ROLE_SECONDS},
        )
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, _Role.METHOD)

    def _sts(self, service: str, **credentials: Any) -> Any:
        config = self._config(self._manners)
        with self._making:
            make = partial(self._sessions[None].client, service, region_name=self._region, config=config)
            return make(endpoint_url=self._endpoint_url, **credentials)

    def _config(self, manners: Manners) -> Config:
        # Other stores answer at one host name, and some refuse checksums that came after them.
        elsewhere = self._endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        checksums: Any = "when_required" if elsewhere else "when_supported"
        return Config(
            connect_timeout=manners.connect_seconds,
            read_timeout=manners.read_seconds,
            retries={"mode": "standard", "total_max_attempts": manners.tries},
            max_pool_connections=manners.connections,
            s3={"addressing_style": "path" if elsewhere else "auto"},
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            user_agent_extra="inbound",
        )


class _Role(CredentialProvider):
    """Nothing but a role's credentials."""

    METHOD = "sts-assume-role"

    def __init__(self, credentials: DeferredRefreshableCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> DeferredRefreshableCredentials:
        """They are fetched when they are used first."""
        return self._credentials


def _new_session() -> Any:
    session = botocore.session.get_session()
    session.register_component("data_loader", _models(session.get_config_variable("data_path")))
    return session


@cache
def _models(data_path: str | None) -> Any:
    """The descriptions of services, which take long to read: once for all sessions."""
    return create_loader(data_path)


@cache
def _trust(bundle: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=bundle)
