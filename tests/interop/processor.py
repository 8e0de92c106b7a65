"""What the comparisons with LiteRT's CPU kernels must know of the processor."""
import pathlib


def adds_in_known_order():
    """Whether the reference's device arithmetic knows in which order XNNPACK adds here: x86-64 with FMA."""
    facts = pathlib.Path("/proc/cpuinfo")
    return facts.exists() and " fma " in facts.read_text()
