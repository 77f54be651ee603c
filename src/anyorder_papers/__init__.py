"""The catalogue of the papers that AnyOrder grew from: find one, see what of it runs.

The package reads; it ships no abstracts. ``anyorder`` and ``anyorder_studies`` never import it.

Example:
    >>> from anyorder_papers.catalogue import get
    >>> get(16).topic
    'second'
"""
