"""NAV light curves: two localized dips and a short Fourier series instead of a long one."""
