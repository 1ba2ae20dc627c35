"""What several test modules share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Small networks are not faster with more, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
