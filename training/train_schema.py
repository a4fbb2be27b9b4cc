"""The schema of a job file's `[train]`: how the network learns."""

from __future__ import annotations

from training.job_fields import Base, Choice, Section, Setting, number, whole, whole_number
from training.losses import LOSSES
from training.optimizers import OPTIMIZERS
from training.settings import EarlyStopping, TrainSection


class EarlyStoppingSchema(Base):
    section = EarlyStopping
    patience = whole_number(1, 2**53)
    min_delta = number("a number of at least 0", lambda value: value >= 0)


class TrainSchema(Base):
    section = TrainSection
    loss = Choice(tuple(LOSSES))
    optimizer = Choice(tuple(OPTIMIZERS))
    learning_rate = number("a number above 0", lambda value: value > 0)
    momentum = number("a number from 0 to below 1", lambda value: 0 <= value < 1)
    epochs = whole_number(1, 2**53)
    batch_size = Setting("a whole number of at least 1, or 'all'", lambda size: size == "all" or whole(size, 1, 2**53))
    seed = whole_number(0, 2**63)
    threads = whole_number(1, 1024)
    early_stopping = Section(EarlyStoppingSchema)
