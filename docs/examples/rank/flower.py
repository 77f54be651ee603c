"""A drawn flower: seven numbers that only a person can judge."""

import colorsys
import math

prompt = "Which flower do you like best?"
parameters = {
    "hue": 0.6,
    "warmth of the centre": 0.3,
    "petals": 0.3,
    "length": 0.3,
    "width": 0.3,
    "roundness": 0.3,
    "turn": 0.0,
}


def between(low, high, x):
    """Any number becomes one between two bounds; 0 is ``low`` and 1 is ``high``."""
    return low + (high - low) / (1 + math.exp(-6 * (x - 0.5)))


def colour(hue, saturation, value):
    """Return a colour for SVG; hues that differ by a whole number are equal."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return f"rgb({255 * red:.0f} {255 * green:.0f} {255 * blue:.0f})"


def render(parameters):
    """Return the flower as an SVG image."""
    hue, warmth, petals, length, width, roundness, turn = parameters.values()
    count = round(between(4, 14, petals))
    far, wide = between(25, 46, length), between(3, 16, width)
    bulge = far * between(0.2, 0.9, roundness)
    petal = f"M0 0C{wide} {-bulge} {wide} {-far} 0 {-far}C{-wide} {-far} {-wide} {-bulge} 0 0Z"
    drawn = [
        f'<path d="{petal}" transform="rotate({360 * (i / count + turn):.1f})" '
        f'fill="{colour(hue + 0.04 * (i % 2), 0.65, 0.92)}" stroke="#0003"/>'
        for i in range(count)
    ]
    centre = f'<circle r="9" fill="{colour(between(0.0, 0.17, warmth), 0.8, 0.95)}"/>'
    ground = '<rect x="-50" y="-50" width="100" height="100" fill="#eef1ea"/>'
    size = 'width="300" height="300" viewBox="-50 -50 100 100"'
    shapes = "".join([ground, *drawn, centre])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{shapes}</svg>'.encode()
