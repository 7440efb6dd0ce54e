# Kilobits a second of layer III, by their index (ISO 11172-3, 2.4.2.3, and ISO 13818-3 for the lower sample rates).
_RATES_OF_MPEG_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES_OF_MPEG_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAMPLE_RATES = (44_100, 48_000, 32_000)


def is_whole_frame(data: bytes) -> bool:
    """Whether it is one frame of layer III as long as its header says, and nothing else.

    FFmpeg hands on what stands between and behind the frames as if it were one.
    """
    if len(data) < 4:
        return False
    header = int.from_bytes(data[:4], "big")
    version, layer = header >> 19 & 3, header >> 17 & 3
    rate, sample_rate, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or rate in (0, 15) or sample_rate == 3:
        return False
    # MPEG 1 is 3, MPEG 2 is 2, and its half rates are 0.
    is_first = version == 3
    bits = (_RATES_OF_MPEG_1 if is_first else _RATES_OF_MPEG_2)[rate - 1] * 1000
    samples_a_second = _SAMPLE_RATES[sample_rate] // {3: 1, 2: 2, 0: 4}[version]
    return len(data) == (144 if is_first else 72) * bits // samples_a_second + padding
