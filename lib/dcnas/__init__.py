"""dcnas: a notebook-based reproducibility study of joint image denoising and classification.

The paper: Markhorst, Kayhan, van Gemert, "Architectural Innovations for Efficient Denoising and
Classification: A Manual vs. Neural Architecture Search Comparison" (2023).
"""

__version__ = "0.1.0"
