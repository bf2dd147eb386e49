#!/usr/bin/env python3
"""A PNG of a page from its top to the end of one of its elements. usage: page_picture.py PAGE PNG ELEMENT [WIDTH]"""

import sys

import browser

MARGIN = 24

if __name__ == "__main__":
    source, picture, element = sys.argv[1:4]
    width = int(sys.argv[4]) if len(sys.argv) > 4 else 1120
    with browser.Page(source, width=width) as page:
        bottom = page.evaluate(f"document.getElementById('{element}').getBoundingClientRect().bottom + scrollY")
        page.picture(picture, {"x": 0, "y": 0, "width": width, "height": bottom + MARGIN})
