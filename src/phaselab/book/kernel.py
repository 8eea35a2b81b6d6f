"""The kernel of a notebook that is run without anybody at it."""

from jupyter_client.manager import AsyncKernelManager


class Kernel(AsyncKernelManager):
    """Ends without an interrupt: one that comes while the last answer is being sent is logged by ipykernel as an error.

    What a cell that was cut short leaves is removed by the next run.
    """

    async def _async_interrupt_kernel(self) -> None:
        if not self.shutting_down:
            await super()._async_interrupt_kernel()
