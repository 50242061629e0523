# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
__version__ = '0.2.0.dev0'
