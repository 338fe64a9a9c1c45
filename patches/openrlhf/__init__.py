"""OpenRLHF: https://github.com/OpenRLHF/OpenRLHF"""
