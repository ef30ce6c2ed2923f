"""ckptd for torch.distributed.checkpoint: sharded states, of FSDP2 and of tensor parallel DTensors.

    import torch.distributed.checkpoint as dcp

    state = {"model": model_state, "optimizer": optimizer_state}  # of get_state_dict
    dcp.save(state, storage_writer=ckptd.dcp.StorageWriter("llama@3"), planner=ckptd.dcp.SavePlanner())
    dcp.load(state, storage_reader=ckptd.dcp.StorageReader("llama:latest"), planner=ckptd.dcp.LoadPlanner())

Each rank sends its own shards; the checkpoint becomes visible when all have, and not at all if one fails. It is one
like any other: ``ckptd.load`` and ``ckptctl restore`` give its whole tensors, and a state of ``ckptd.save`` can be
loaded here. No pickle is stored, and no stored byte is unpickled.

A failure on one rank is raised on all, as torch's ``CheckpointException``: a BaseException, which ``except Exception``
does not catch. Its ``failures`` have each rank's own error.

``dcp.async_save`` needs a process group of its own, such as ``torch.distributed.new_group(backend="gloo")``: on the
group that the training uses their collectives would meet.
"""

from __future__ import annotations

from ckptd._dcp_load import StorageReader
from ckptd._dcp_plan import LoadPlanner, SavePlanner
from ckptd._dcp_save import StorageWriter

__all__ = ["LoadPlanner", "SavePlanner", "StorageReader", "StorageWriter"]
