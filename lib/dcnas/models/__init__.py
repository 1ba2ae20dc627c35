"""The networks of Section 3: classifiers, UNet denoisers and the joint DC-Net."""

from .classifier import CLASSIFIERS, VARIANTS, Classifier, build_classifier
from .dcnet import JOINING, UNETS, EncoderClassifier, Integrated, Sequential, build_dcnet
from .dncnn import DnCNN
from .flops import count_flops, count_parameters
from .unet import UNet, unet_widths

__all__ = ["CLASSIFIERS", "JOINING", "UNETS", "VARIANTS", "Classifier", "DnCNN", "EncoderClassifier"]
__all__ += ["Integrated", "Sequential", "UNet", "build_classifier", "build_dcnet", "count_flops"]
__all__ += ["count_parameters", "unet_widths"]
