"""What came from where when weights were reallocated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChainReport:
    """Where the blocks of one stage, or of one branch of it, come from."""

    name: str  # of the module that holds the blocks
    source_blocks: int  # of the checkpoint's stage
    blocks: int

    @property
    def copied(self) -> int:
        return min(self.source_blocks, self.blocks)

    @property
    def new(self) -> int:
        """Blocks that start as the identity."""
        return max(0, self.blocks - self.source_blocks)

    @property
    def left_out(self) -> int:
        """The checkpoint's last blocks, which have no place here."""
        return max(0, self.source_blocks - self.blocks)


@dataclass(frozen=True)
class WeightReport:
    """What came from where; as a string a table.

    Attributes:
        origin: The checkpoint.
        chains: Of every stage, or of every branch in a stage supernet.
        copied: How many tensors of the backbone were taken over.
        kept: Names of tensors that the checkpoint lacks and need not have.
        frozen: Names of blocks that start as the identity and stay it: the weight
            of their last norm is not trained (`frozen_stages`, or norms without
            gradient).
        ignored: How many tensors are not of the backbone, by where they belong
            (``fc``, ``head``, ``neck``).
    """

    origin: str
    chains: tuple[ChainReport, ...]
    copied: int
    kept: tuple[str, ...]
    frozen: tuple[str, ...]
    ignored: dict[str, int]

    def __str__(self) -> str:
        width = max(len(chain.name) for chain in self.chains)
        lines = [
            f'Weights of {self.origin}, blocks by stage and position:',
            f'{"stage":{width}}  checkpoint  here  copied  identity  left out',
        ]
        lines += [
            f'{c.name:{width}}  {c.source_blocks:10}  {c.blocks:4}  {c.copied:6}  '
            f'{c.new:8}  {c.left_out:8}'
            for c in self.chains
        ]
        ignored = ', '.join(f'{n} of {name}' for name, n in self.ignored.items())
        lines.append(
            f'{self.copied} tensors copied, {len(self.kept)} that it may lack kept; '
            f'not of the backbone: {ignored or "none"}.'
        )
        if self.frozen:
            lines.append(
                f'{len(self.frozen)} blocks are frozen as the identity and will never '
                f'learn, such as {self.frozen[0]}: train their norms.'
            )
        return '\n'.join(lines)
