"""What a controller hands to the Hub's queue of reviews: a tree, what the programs found of it, bundles.

Nothing in it is believed that can be looked at: contents by their ids, the tree by its files, a bundle by the
tree. What the programs of gate 1 found is believed, as is whoever may write to the queue: root of the Hub.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from mt5crs.review import binding
from mt5crs.review.decision import Policy
from mt5crs.review.model import ReviewError
from mt5crs.review.programs import Outcome
from mt5crs.review.tree import Entry, Tree, blob_id, id_of, read_blobs

FORMAT: Final = 1
_MB: Final = 1_000_000


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One review that is asked for."""

    format: int
    tool: str
    """The version whose rules and questions are meant."""
    by: str
    policy: Policy
    tree: str
    files: dict[str, Entry]
    base: str | None
    base_files: dict[str, Entry]
    blobs: dict[str, bytes]
    outcomes: list[Outcome]
    """What each program of gate 1 found where it was submitted."""
    bundles: dict[str, bytes]

    @property
    def id(self) -> str:
        """The same for the same question, whoever asks it and however often."""
        asked = [self.format, self.tool, self.policy, self.tree, self.base, self.outcomes]
        asked += sorted(hashlib.sha256(content).hexdigest() for content in self.bundles.values())
        return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()[:16]


def of(
    tree: Tree,
    base: Tree | None,
    policy: Policy,
    outcomes: Sequence[Outcome],
    bundles: Sequence[Path],
    *,
    tool: str,
    by: str,
) -> Submission:
    """The submission of a tree (of what differs from `base`).

    :raises ReviewError: git cannot read a content
    :raises OSError: a bundle cannot be read
    """
    before = base.files if base is not None else {}
    return Submission(
        format=FORMAT,
        tool=tool,
        by=by,
        policy=policy,
        tree=tree.id,
        files=dict(tree.files),
        base=base.id if base is not None else None,
        base_files=dict(before),
        blobs=read_blobs(tree, {*tree.files, *before}, before),
        outcomes=list(outcomes),
        bundles={bundle.name: bundle.read_bytes() for bundle in bundles},
    )


def packed(submission: Submission) -> bytes:
    """Its bytes."""
    return zlib.compress(msgspec.msgpack.encode(submission), 6)


def read(content: bytes, most_mb: float) -> Submission:
    """Read a submission of `most_mb` megabytes at most, unpacked.

    :raises ReviewError: it is none, is larger, or is not what it says
    """
    most = int(most_mb * _MB)
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(content, most)
        if unpacking.unconsumed_tail or not unpacking.eof or unpacking.unused_data:
            raise ReviewError(f"the submission is cut, or larger than {most_mb:g} MB (review_submission_mb)")
        made = msgspec.msgpack.decode(unpacked, type=Submission)
    except (zlib.error, msgspec.DecodeError, RecursionError) as error:
        raise ReviewError(f"this is no submission ({error}); submit it again") from None
    if made.format != FORMAT:
        raise ReviewError(f"the submission has format {made.format}, and this version reads {FORMAT}")
    _look(made)
    return made


def trees(submission: Submission) -> tuple[Tree, Tree | None]:
    """The tree and its base, read from what came with them."""
    nowhere = Path()
    tree = Tree(nowhere, submission.tree, submission.files, submission.blobs)
    if submission.base is None:
        return tree, None
    return tree, Tree(nowhere, submission.base, submission.base_files, submission.blobs)


def contents(submission: Submission, tree: Tree) -> dict[str, str]:
    """The content digest of each bundle, which was made of this tree.

    :raises ReviewError: it was not, or is none
    """
    return {
        name: binding.content_in(io.BytesIO(content), Path(name), tree)
        for name, content in submission.bundles.items()
    }


def _look(made: Submission) -> None:
    try:
        wrong = [blob for blob, content in made.blobs.items() if blob_id(content, blob) != blob]
        listed = [(made.tree, made.files)]
        if made.base is not None:
            listed.append((made.base, made.base_files))
        wrong += [name for name, files in listed if id_of(files) != name]
        sized = [entry for _, files in listed for entry in files.values() if entry.blob in made.blobs]
    except ValueError as error:
        raise ReviewError(f"the submission is damaged ({error}); submit it again") from None
    wrong += [entry.blob for entry in sized if entry.size != len(made.blobs[entry.blob])]
    if wrong:
        raise ReviewError(
            f"the submission is not what it says: {wrong[0]} is another content; submit it again"
        )
    if made.base is not None and made.bundles:
        raise ReviewError("a bundle goes with a review of everything; submit it without a base")
