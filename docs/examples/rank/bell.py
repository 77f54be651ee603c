"""A synthesised bell: four numbers, judged by ear."""

import numpy as np

from anyorder.judging import Sound

prompt = "Which bell sounds best?"
parameters = {"pitch": 0.0, "ratio": 0.0, "brightness": 0.0, "decay": 0.0}


def render(parameters):
    """Return one second of sound by frequency modulation."""
    t = np.arange(44_100) / 44_100
    pitch = 440 * 2 ** parameters["pitch"]
    ratio = 1.4 * 2 ** parameters["ratio"]
    fade = np.exp(-4 * 2 ** parameters["decay"] * t)
    index = 3 * 2 ** parameters["brightness"] * fade
    tone = np.sin(2 * np.pi * pitch * t + index * np.sin(2 * np.pi * pitch * ratio * t))
    return Sound(0.5 * fade * tone)
