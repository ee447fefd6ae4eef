# /// script
# dependencies = ["tokenizers==0.22.2"]
#
# [tool.saver-conformance]
# name = "tokenizers"
# place = 2
# text = "the tokenizers library, which takes tokenizer.json as it is"
# gives = ["tokens"]
# fast = true
# ///
"""Reads tokenizer.json as it is; AutoTokenizer may put its own pre-tokenizer in its place."""

from functools import cached_property
from pathlib import Path

import tokenizers
from reader_worker import Folder, Unsupported, serve


class Reading(Folder):
    """A folder's ``tokenizer.json``."""

    def tokens(self, texts):
        """Token ids by the file alone."""
        return [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]

    @cached_property
    def _tokenizer(self):
        file = Path(self.tokenizer, "tokenizer.json")
        if not file.is_file():
            raise Unsupported("there is no tokenizer.json")
        return tokenizers.Tokenizer.from_file(str(file))


if __name__ == "__main__":
    serve(Reading, {"tokenizers": tokenizers.__version__})
