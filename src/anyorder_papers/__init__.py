"""The catalogue of papers behind AnyOrder: search it, and see which papers have code and studies.

The package contains no abstracts. ``anyorder`` and ``anyorder_studies`` never import it.

Example:
    >>> from anyorder_papers.catalogue import get
    >>> get(16).topic
    'second'
"""
