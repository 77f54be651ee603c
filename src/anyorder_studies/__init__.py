"""Claims of papers as runnable studies: one folder per paper, with data, verdict and figure.

A study states a paper's claim as data, measures it at a size that runs here, and lets a fixed rule
say *reproduced*, *partly*, *not at this scale* or *refuted*. Whole systems that belong to a paper
live in its folder and can be imported and used on other data. Nothing in ``anyorder`` imports this
package.
"""
