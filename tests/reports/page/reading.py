"""What a page says, read back from its HTML by Python's own parser."""

import html.parser


class _Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tables, self.words, self.tags = {}, [], []
        self._row, self._cell, self._caption = None, None, None

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == 'caption':
            self._caption, self._cell = '', []
        elif tag == 'tr':
            self._row = []
        elif tag in ('td', 'th'):
            self._cell = []

    def handle_endtag(self, tag):
        if tag == 'caption':
            self._caption = ' '.join(self._cell).strip()
            self.tables[self._caption] = []
        elif tag == 'tr':
            self.tables[self._caption].append(self._row)
        elif tag in ('td', 'th'):
            self._row.append(' '.join(' '.join(self._cell).split()))

    def handle_data(self, data):
        self.words.append(data)
        if self._cell is not None:
            self._cell.append(data)


def read_page(path):
    """The page with `tables`, rows of cells by caption; `tags`, name and attributes of each; `text`, all words."""
    reader = _Reader()
    reader.feed(path.read_text(encoding='utf-8'))
    reader.close()
    reader.text = ' '.join(' '.join(reader.words).split())
    return reader


def rows_of(page, start):
    """The rows of the one table whose caption starts so."""
    (caption,) = (caption for caption in page.tables if caption.startswith(start))
    return page.tables[caption]
