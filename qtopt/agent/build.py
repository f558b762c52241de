"""From a configuration to a network."""

from qtopt.agent.compact import CompactNetwork
from qtopt.agent.network import NetworkConfig, QNetwork
from qtopt.agent.paper import PaperNetwork


def build_network(config: NetworkConfig) -> QNetwork:
    """Builds the network that ``config.kind`` names, with fresh weights; raises ConfigError where sizes do not fit."""
    return CompactNetwork(config) if config.kind == "compact" else PaperNetwork(config)
