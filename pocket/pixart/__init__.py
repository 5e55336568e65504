"""The pocket PixArt, its EasyAnimate motion module and a style for it."""
