"""Claims of papers as runnable studies: one folder per paper, with result, verdict and figure.

A study states a paper's claims as data and measures them at a size that runs on an ordinary
computer. A fixed rule then gives the verdict: *reproduced*, *partly*, *not at this scale* or
*refuted*. If a paper proposes a complete system, its implementation is in the study's folder and
can be imported and used on other data. Nothing in ``anyorder`` imports this package.
"""
