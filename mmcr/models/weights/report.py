"""What came from where when weights were reallocated."""

from typing import NamedTuple


class ChainReport(NamedTuple):
    """Where the blocks of one stage, or of one branch of it, come from."""

    name: str  # of the module that holds the blocks
    source_blocks: int  # of the checkpoint's stage
    blocks: int

    @property
    def copied(self) -> int:
        return min(self.source_blocks, self.blocks)

    @property
    def new(self) -> int:
        """Blocks that start as the identity, or at random without a shortcut."""
        return max(0, self.blocks - self.source_blocks)

    @property
    def left_out(self) -> int:
        """The checkpoint's last blocks, which have no place here."""
        return max(0, self.source_blocks - self.blocks)


class WeightReport(NamedTuple):
    """What came from where; as a string a table."""

    origin: str  # the checkpoint
    chains: tuple[ChainReport, ...]
    copied: int  # tensors of the backbone
    kept: tuple[str, ...]  # tensors that the checkpoint lacks and need not have
    random: tuple[str, ...]  # new blocks that have no shortcut
    frozen: tuple[str, ...]  # blocks that stay the identity: their norm is not trained
    ignored: dict[str, int]  # tensors of others, by where they belong (``fc``)

    def __str__(self) -> str:
        width = max(len(chain.name) for chain in self.chains)
        lines = [
            f'Weights of {self.origin}, blocks by stage and position:',
            f'{"stage":{width}}  checkpoint  here  copied   new  left out',
        ]
        lines += [
            f'{c.name:{width}}  {c.source_blocks:10}  {c.blocks:4}  {c.copied:6}  '
            f'{c.new:4}  {c.left_out:8}'
            for c in self.chains
        ]
        ignored = ', '.join(f'{n} of {name}' for name, n in self.ignored.items())
        lines.append(
            f'{self.copied} tensors copied, {len(self.kept)} that it may lack kept; '
            f'not of the backbone: {ignored or "none"}.'
        )
        if any(chain.new for chain in self.chains):
            lines.append('New blocks start as the identity.')
        if self.random:
            lines.append(
                f'Without a shortcut {len(self.random)} of them cannot, such as '
                f'{self.random[0]}: these start at random.'
            )
        if self.frozen:
            lines.append(
                f'{len(self.frozen)} blocks are frozen as the identity and will never '
                f'learn, such as {self.frozen[0]}: train their norms.'
            )
        return '\n'.join(lines)
