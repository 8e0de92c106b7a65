"""How figures of `gemma-qat eval --reference` are held against those of another program."""

NEAR = 1e-3  # relative for perplexities and the mean KL


def count_differences(found, wanted, label):
    """Prints each wanted figure beside the one found, and returns how many differ."""
    differing = 0
    for name, value in wanted.items():
        scale = abs(value) if "perplexity" in name or name == "mean" else 1.0
        differs = abs(found[name] - value) > NEAR * scale
        differing += differs
        print(f"{name:24} {found[name]:.6g} {label} {value:.6g}{'  DIFFERS' if differs else ''}")
    return differing
