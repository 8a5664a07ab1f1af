"""Every action there is, by its YAML key."""

from collections.abc import Mapping

from inbound.actions import Action
from inbound.actions.add_header import AddHeader
from inbound.actions.bounce import Bounce
from inbound.actions.drop import Drop
from inbound.actions.invoke import Invoke
from inbound.actions.quarantine import Quarantine
from inbound.actions.relay import Relay
from inbound.actions.s3 import S3
from inbound.actions.sns import Sns
from inbound.actions.sqs import Sqs
from inbound.actions.stop import Stop
from inbound.actions.webhook import Webhook

ACTIONS: Mapping[str, type[Action]] = {
    action.kind: action for action in (S3, Invoke, Sns, Sqs, Webhook, Relay, Bounce, AddHeader, Stop, Drop, Quarantine)
}
