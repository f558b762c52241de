"""Training from stored grasps alone: store, updater and trainer in one process, without collector and without gRPC."""

import dataclasses
import datetime
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from qtopt.agent.learner import LearnerConfig
from qtopt.apps import label as label_app
from qtopt.apps import train as train_app
from qtopt.apps.events import EventWriter
from qtopt.apps.live import finite
from qtopt.apps.process import StopSignal, begin, limit_threads, logger, say
from qtopt.apps.rundir import RunDirectory
from qtopt.config import STRICT
from qtopt.errors import ConfigError, StoreError
from qtopt.loops.checkpoints import Checkpoints
from qtopt.loops.label import LabelLoopConfig, label
from qtopt.loops.metrics import Every
from qtopt.loops.train import TrainLoopConfig, train
from qtopt.replay import Replay, ReplayConfig
from qtopt.rpc.registry import ModelRegistry
