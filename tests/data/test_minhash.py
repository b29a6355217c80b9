"""Band keys: how often they find pairs, against the probabilities of theory; and that they never change."""

from __future__ import annotations

import numpy as np
import pytest

from ftcli.data.minhash import NO_KEY, band_keys, multipliers
from ftcli.data.shingles import Shingles, concatenate, shingle
from tests.data.planted import Prose


def pairs_of(size: int, shared: int, count: int) -> tuple[Shingles, Shingles]:
    """``count`` pairs of sets of ``size`` random hashes, of which ``shared`` are in both."""
    random = np.random.default_rng(size)
    hashes = random.integers(0, 2**32, (count, 2 * size - shared), dtype=np.uint64).astype(np.uint32)
    sides = hashes[:, :size], np.concatenate([hashes[:, :shared], hashes[:, size:]], axis=1)
    offsets = np.arange(count + 1) * size
    one, other = (Shingles(np.sort(side, axis=1).ravel(), offsets) for side in sides)
    return one, other


@pytest.mark.parametrize(("bands", "rows"), [(10, 6), (28, 5)])
@pytest.mark.parametrize(("size", "shared"), [(17, 14), (85, 70), (190, 180), (300, 200)])
def test_pairs_are_found_as_often_as_theory_says(bands: int, rows: int, size: int, shared: int) -> None:
    """1 - (1 - J^r)^b, within four standard deviations of the binomial; J is .7, .7, .9 and .5."""
    count = 2000
    one, other = pairs_of(size, shared, count)
    found = (band_keys(one, bands, rows) == band_keys(other, bands, rows)).any(axis=1).mean()
    similarity = shared / (2 * size - shared)
    expected = 1 - (1 - similarity**rows) ** bands
    assert abs(found - expected) < 4 * (expected * (1 - expected) / count) ** 0.5 + 1e-3


def test_unrelated_texts_share_no_key() -> None:
    prose = Prose(1)
    keys = band_keys(shingle([prose.text(40) for _ in range(500)]), 10, 6)
    assert all(len(set(column.tolist())) == 500 for column in keys.T)


def test_texts_without_shingles_have_no_key_and_others_keep_theirs() -> None:
    texts = ["", "some text", " ", "another", ""]
    keys = band_keys(shingle(texts), 3, 2)
    assert (keys == NO_KEY).all(axis=1).tolist() == [True, False, True, False, True]
    assert np.array_equal(keys[[1, 3]], band_keys(shingle(["some text", "another"]), 3, 2))
    assert band_keys(shingle([]), 3, 2).shape == (0, 3)
    assert (band_keys(shingle(["", ""]), 3, 2) == NO_KEY).all()


def test_keys_do_not_depend_on_the_texts_beside() -> None:
    prose = Prose(2)
    sets = [shingle([prose.text(prose.random.randint(1, 900))]) for _ in range(60)]
    sets.append(shingle([prose.text(20_000)]))
    together = band_keys(concatenate(sets), 4, 3)
    assert np.array_equal(together, np.concatenate([band_keys(item, 4, 3) for item in sets]))


def test_the_constants_are_those_of_splitmix64() -> None:
    """The first outputs for seed 0, as the reference implementation (Vigna 2015) prints them."""
    reference = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert multipliers(4).tolist() == [number >> 32 | 1 for number in reference]


def test_keys_stay_what_they_are() -> None:
    """Keys of different runs, machines and versions are compared with each other."""
    keys = band_keys(shingle(["What is the capital of France?"]), 2, 3)
    assert keys.tolist() == [[3589163199, 614779924]]
