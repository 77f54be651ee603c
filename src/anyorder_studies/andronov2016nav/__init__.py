"""NAV light curves: two localised dips and a short Fourier series instead of a long one."""
