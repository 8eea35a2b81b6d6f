"""The kernel of a page."""

from jupyter_client.manager import AsyncKernelManager


class Kernel(AsyncKernelManager):
    """Is not interrupted before it ends: when its last answer is still being sent ipykernel logs that as an error."""

    async def _async_interrupt_kernel(self) -> None: ...
