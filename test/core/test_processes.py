"""Batch norm over several processes: that of the whole batch."""

from __future__ import annotations

import pytest
import torch

from kdc_core.training import processes
from kdc_core.training.processes import use_whole_batches


def test_whole_batch_norm_is_batch_norm_for_one_process() -> None:
    plain = torch.nn.BatchNorm2d(3)
    whole = torch.nn.BatchNorm2d(3)
    use_whole_batches(whole)
    x = torch.randn(4, 3, 5, 6)
    assert torch.equal(plain(x), whole(x))
    assert torch.equal(plain.state_dict()["running_var"], whole.state_dict()["running_var"])


def test_whole_batch_norm_counts_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """With half precision, and with channels that do not vary."""
    monkeypatch.setattr(processes, "world", lambda: 2)
    monkeypatch.setattr(processes, "all_reduce", lambda sums: 2 * sums)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        whole, plain = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
        use_whole_batches(whole)
        x = torch.randn(8, 2, 96, 96)
        x[:, 0] = 10 + 0.5 * x[:, 0]
        ours, theirs = whole(x.to(dtype)), plain(x.to(dtype).float())
        assert ours.dtype == dtype
        assert (ours.float() - theirs).abs().max() < (0.05 if dtype != torch.float32 else 1e-3)
        flat = whole(torch.full((4, 2, 8, 8), 3.7, dtype=dtype))
        assert torch.isfinite(flat).all()
