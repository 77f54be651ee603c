"""scipy in both directions: our methods in its minimize, its functions in ours."""

import numpy as np
import scipy.optimize
from sklearn.datasets import load_digits

import anyorder
from anyorder.integrations.scipy import method

pixels, labels = load_digits(return_X_y=True)
x, y = pixels / 16, (labels < 5) * 2.0 - 1.0


def loss(w):
    """Logistic regression: is the digit below 5?"""
    return np.logaddexp(0, -y * (x @ w)).mean() + 1e-3 * (w @ w)


def gradient(w):
    """Return its gradient."""
    return -(x.T @ (y / (1 + np.exp(y * (x @ w))))) / len(y) + 2e-3 * w


start = np.zeros(64)

# scipy calls ours: the function, its gradient and the options are given as for its own methods.
ours = scipy.optimize.minimize(
    loss, start, jac=gradient, method=method("adamw", lr=0.05), options={"maxiter": 200}
)
print("scipy.optimize.minimize with adamw:", round(ours.fun, 3), ours.nfev, ours.njev)

# Ours calls the function that was written for scipy; without a gradient with values alone.
same = anyorder.minimize(loss, start, jac=gradient, method="adamw", lr=0.05, budget="200grads")
values = anyorder.minimize(loss, start, method="mezo", lr=1e-2, budget="800values")
print("anyorder.minimize:", round(same.fun, 3), same.calls.grads, round(values.fun, 3))

# The best point of one is the start of the other.
polished = scipy.optimize.minimize(loss, values.x, jac=gradient, method="L-BFGS-B")
print("L-BFGS-B from there:", round(polished.fun, 3), polished.nfev)
