"""The table of sensors: every number with its source, nowhere else in the package.

Statistics of `hr`, `s2` and `s1` are those of the released SkySense code (docs/sources.md 7), in
physical units: the weights of that family were made with them. Wavelengths: ESA's Sentinel-2
spectral response (S2A centres), USGS for Landsat 8/9, Planet's SuperDove product page.
"""

from collections.abc import Mapping
from dataclasses import replace

from skysense.sensors.cards import EIGHT_BIT, TOKENIZER_BANDS, Band, Modality, SensorCard

_RGB_ALIASES = {"R": ("red", "B4", "B04"), "G": ("green", "B3", "B03"), "B": ("blue", "B2", "B02")}


def _rgb(
    gsd: float,
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53),
    std: tuple[float, float, float] = (58.395, 57.12, 57.375),
    wavelengths: tuple[float, float, float] = (660.0, 560.0, 480.0),
    aliases: Mapping[str, tuple[str, ...]] = _RGB_ALIASES,
) -> tuple[Band, ...]:
    """Red, green, blue; the default statistics are ImageNet's times 255 [code]."""
    return tuple(
        Band(name, mean[i], std[i], gsd, wavelengths[i], aliases[name])
        for i, name in enumerate(TOKENIZER_BANDS["hr"])
    )


_HR = SensorCard(
    name="hr",
    title="high-resolution optical image, red green blue, 8-bit brightness",
    modality="hr",
    bands=_rgb(gsd=0.3),
    unit=EIGHT_BIT,
    plausible=(0.0, 255.0),
    source="docs/sources.md 7 [code]: ImageNet statistics x 255",
)

_NAIP_NIR = Band("NIR", 139.04, 49.86, 0.6, 842.0, ("N", "infrared", "B8", "B08"))

_REFLECTANCE = (-0.02, 1.5)
"""Plausible medians: over dark water the atmospheric correction may fall below zero. [ours]"""
_NUMBERS = (2e-4, 1.5)
"""The same of digital numbers without offset: reflectance read as such is at most 1.5e-4. [ours]"""

_S2_FACTS: tuple[tuple[str, float, float, float, float, tuple[str, ...]], ...] = (
    # name, mean x 1e4, std x 1e4, GSD in m, wavelength in nm, aliases
    ("B2", 884.29673756, 1155.15170768, 10, 492.4, ("blue",)),
    ("B3", 1144.16202635, 1183.6292542, 10, 559.8, ("green",)),
    ("B4", 1297.47289228, 1368.11351514, 10, 664.6, ("red",)),
    ("B5", 1624.90992062, 1370.265037, 20, 704.1, ("rededge1",)),
    ("B6", 2194.6423161, 1355.55390699, 20, 740.5, ("rededge2",)),
    ("B7", 2422.21248945, 1416.51487101, 20, 782.8, ("rededge3",)),
    ("B8", 2517.76053101, 1474.78900051, 10, 832.8, ("nir",)),
    ("B8A", 2581.64687018, 1439.3086061, 20, 864.7, ("nir08", "nir narrow")),
    ("B11", 2368.51236873, 1455.52084939, 20, 1613.7, ("swir16", "swir1")),
    ("B12", 1805.06846033, 1343.48379601, 20, 2202.4, ("swir22", "swir2")),
)

_S2 = SensorCard(
    name="s2",
    title="Sentinel-2 reflectance, 0 to 1",
    modality="s2",
    bands=tuple(
        Band(name, mean * 1e-4, std * 1e-4, gsd, wave, aliases)
        for name, mean, std, gsd, wave, aliases in _S2_FACTS
    ),
    unit="reflectance",
    plausible=_REFLECTANCE,
    source="docs/sources.md 7 [code], divided by 10,000",
)

_S2_L1C_FACTS: Mapping[str, tuple[float, float]] = {  # mean x 1e4, std x 1e4
    "B2": (1390.78157673, 850.34818441),
    "B3": (1314.8729939, 875.06484736),
    "B4": (1363.52445545, 1138.84957046),
    "B5": (1549.44374991, 1122.17775652),
    "B6": (2091.74883118, 1161.59187054),
    "B7": (2371.7172463, 1274.39184232),
    "B8": (2299.90463006, 1248.42891965),
    "B8A": (2560.29504086, 1345.52684884),
    "B11": (2177.07172323, 1336.09932639),
    "B12": (1524.06546312, 1136.53823676),
}

_S2_L2A = replace(
    _S2,
    name="s2_l2a",
    title="Sentinel-2 L2A as delivered, digital numbers, before baseline 04.00 or harmonized",
    scale=1e-4,
    nodata=0.0,
    plausible=_NUMBERS,
    source="ESA product specification: reflectance = DN / 10000, 0 is no data; statistics of `s2`",
)

_S2_L1C = replace(
    _S2_L2A,
    name="s2_l1c",
    title="Sentinel-2 L1C (top of atmosphere) as delivered, before baseline 04.00 or harmonized",
    bands=tuple(
        replace(
            band, mean=_S2_L1C_FACTS[band.name][0] * 1e-4, std=_S2_L1C_FACTS[band.name][1] * 1e-4
        )
        for band in _S2.bands
    ),
    source="ESA product specification; statistics: SSL4EO-S12 L1C, published with that dataset",
)

_S1 = SensorCard(
    name="s1",
    title="Sentinel-1 backscatter, VV and VH, decibel",
    modality="s1",
    bands=(
        Band("VV", -12.54847273, 5.25697717, 10),
        Band("VH", -20.19237134, 5.91150917, 10),
    ),
    unit="dB",
    plausible=(-45.0, 0.0),  # linear power is above 0
    source="docs/sources.md 7 [code]",
)


_LANDSAT = replace(
    _S2,
    name="landsat_c2_l2",
    title="Landsat 8/9 Collection 2 Level-2 surface reflectance, six bands, digital numbers",
    bands=tuple(
        replace(band, name=target, aliases=aliases, gsd=30.0, wavelength=wave)
        for band, target, aliases, wave in (
            (_S2.bands[0], "B2", ("SR_B2", "blue"), 482.0),
            (_S2.bands[1], "B3", ("SR_B3", "green"), 561.4),
            (_S2.bands[2], "B4", ("SR_B4", "red"), 654.6),
            (_S2.bands[7], "B8A", ("SR_B5", "B5", "nir08", "nir"), 864.7),
            (_S2.bands[8], "B11", ("SR_B6", "B6", "swir16", "swir1"), 1608.9),
            (_S2.bands[9], "B12", ("SR_B7", "B7", "swir22", "swir2"), 2200.7),
        )
    ),
    scale=2.75e-5,
    offset=-0.2,
    nodata=0.0,
    source="USGS: Collection 2 scale factors, fill value 0; statistics of `s2` (same quantity)",
)

_CARDS: tuple[SensorCard, ...] = (
    _HR,
    _S2,
    _S1,
    replace(
        _HR,
        name="rgb8",
        title="8-bit aerial or drone RGB image",
        source="as `hr`",
    ),
    replace(
        _HR,
        name="naip",
        title="NAIP aerial image, 8-bit, red green blue (near infrared is not used)",
        bands=_rgb(gsd=0.6),
        source="USDA NAIP: 4 bands R G B N, 8 bit; statistics as `hr`",
    ),
    replace(
        _HR,
        name="naip_rgbn",
        title="NAIP aerial image, 8-bit, red green blue and near infrared, for `hr` of 4 bands",
        bands=(*_rgb(gsd=0.6), _NAIP_NIR),
        source="USDA NAIP; statistics as `hr`, near infrared: NAIP's in the metadata of Clay 1.5",
    ),
    replace(
        _HR,
        name="planet",
        title="PlanetScope surface reflectance, digital numbers (x 10,000)",
        bands=_rgb(
            gsd=3.0,
            mean=(0.10852941, 0.09442718, 0.06892493),
            std=(0.10084052, 0.07609586, 0.06314754),
            wavelengths=(665.0, 565.0, 490.0),
            aliases={"R": ("red",), "G": ("green",), "B": ("blue",)},
        ),
        unit="reflectance",
        scale=1e-4,
        nodata=0.0,
        plausible=_NUMBERS,
        source="Planet: reflectance x 10,000; DynamicEarthNet statistics, docs/sources.md 7",
    ),
    _S2_L2A,
    replace(
        _S2_L2A,
        name="s2_l2a_n0400",
        title="Sentinel-2 L2A as delivered since 25 January 2022 (baseline 04.00: DN - 1000)",
        offset=-0.1,
        plausible=_REFLECTANCE,
        source="ESA processing baseline 04.00: BOA_ADD_OFFSET -1000; statistics of `s2`",
    ),
    _S2_L1C,
    replace(
        _S2_L1C,
        name="s2_l1c_n0400",
        title="Sentinel-2 L1C as delivered since 25 January 2022 (baseline 04.00: DN - 1000)",
        offset=-0.1,
        plausible=_REFLECTANCE,
        source="ESA processing baseline 04.00: RADIO_ADD_OFFSET -1000; statistics as `s2_l1c`",
    ),
    replace(
        _S1,
        name="s1_linear",
        title="Sentinel-1 backscatter, VV and VH, linear power",
        power_to_decibel=True,
        nodata=0.0,
        source="10 log10(power); statistics of `s1`",
    ),
    replace(
        _S1,
        name="s1_vv",
        title="Sentinel-1 backscatter, VV alone, decibel",
        bands=_S1.bands[:1],
        source="as `s1`; VH is absent",
    ),
    _LANDSAT,
)

SENSORS: Mapping[str, SensorCard] = {card.name: card for card in _CARDS}
"""Every sensor card by name."""

DEFAULT_SENSORS: Mapping[Modality, str] = {"hr": "rgb8", "s2": "s2_l2a", "s1": "s1"}
"""The card a file is read with when only its modality is said."""
