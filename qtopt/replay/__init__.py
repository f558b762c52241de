"""The replay store: episodes on disk or in memory, sampling, labels by reference, and the pace between the two."""

from qtopt.replay.backup import BackupReport, back_up, restore
from qtopt.replay.condition import StoreCondition
from qtopt.replay.description import restore_format
from qtopt.replay.episode_store import EpisodeStore
from qtopt.replay.label_ring import LabelRingConfig
from qtopt.replay.memory import MemoryStore
from qtopt.replay.rate_limiter import RateLimiterConfig
from qtopt.replay.rebuild import rebuild_catalogue
from qtopt.replay.reentry import RebuildReport
from qtopt.replay.retention import RetentionConfig
from qtopt.replay.sampler import SamplerConfig
from qtopt.replay.schema import StoreFormat, read_format
from qtopt.replay.store import ReplayConfig, ReplayStore
from qtopt.replay.verify import DamagedEpisode, VerifyReport

__all__ = [
    "BackupReport",
    "DamagedEpisode",
    "EpisodeStore",
    "LabelRingConfig",
    "MemoryStore",
    "RateLimiterConfig",
    "RebuildReport",
    "ReplayConfig",
    "ReplayStore",
    "RetentionConfig",
    "SamplerConfig",
    "StoreCondition",
    "StoreFormat",
    "VerifyReport",
    "back_up",
    "read_format",
    "rebuild_catalogue",
    "restore",
    "restore_format",
]
