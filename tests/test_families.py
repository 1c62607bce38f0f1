"""Families: every language that is detected or tested somewhere has one, and nothing fails."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage.language import normalise
from reward.language import languages
from router.experience import families
from router.experience.families import family

# the languages of FLORES-200, as its files name them
FLORES = """
    ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn als_Latn amh_Ethi
    apc_Arab arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn
    azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab
    bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab
    crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn
    est_Latn eus_Latn ewe_Latn fao_Latn fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn
    gaz_Latn gla_Latn gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva
    hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn
    jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor kaz_Cyrl kbp_Latn
    kea_Latn khk_Cyrl khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn knc_Arab knc_Latn
    kon_Latn kor_Hang lao_Laoo lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn
    lua_Latn lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Arab
    min_Latn mkd_Cyrl mlt_Latn mni_Beng mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn
    npi_Deva nso_Latn nus_Latn nya_Latn oci_Latn ory_Orya pag_Latn pan_Guru pap_Latn pbt_Arab
    pes_Arab plt_Latn pol_Latn por_Latn prs_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn
    san_Deva sat_Olck scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab
    som_Latn sot_Latn spa_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn
    tam_Taml taq_Latn taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tpi_Latn
    tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn
    urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant
    zho_Hans zho_Hant zsm_Latn zul_Latn
"""
LISTED = [tag for tags in families._MEMBERS.values() for tag in tags.split()]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("de nl en sv nb nn no yi tpi", "germanic"),
        ("fr pt ro la ht eo", "romance"),
        ("pl ru uk sr sr-Latn", "slavic"),
        ("hi ur bn ne mr", "indo-aryan"),
        ("fa tg ku ps", "iranian"),
        ("tr uz kk az", "turkic"),
        ("fi hu et", "uralic"),
        ("ar arz he am mt", "semitic"),
        ("zh zh-Hant yue", "sinitic"),
        ("ja", "japonic"),
        ("ko ko-Hang", "koreanic"),
        ("ta te ml kn", "dravidian"),
        ("sw zu rw ln", "bantu"),
        ("id ms jv fil mi mg", "austronesian"),
        ("vi km", "austroasiatic"),
        ("th lo", "kra-dai"),
        ("my bo dz", "tibeto-burman"),
        ("yo ig ee", "volta-niger"),
    ],
)
def test_languages_that_resemble_one_another_share_a_family(tags: str, expected: str) -> None:
    assert {family(tag) for tag in tags.split()} == {expected}


@pytest.mark.parametrize("code", FLORES.split())
def test_every_language_of_flores_has_a_family_raw_or_normalised(code: str) -> None:
    assert family(normalise(code)) == family(code) in families._MEMBERS


def test_every_language_that_is_detected_has_a_family() -> None:
    detected = languages() - {"und"}
    assert len(detected) > 100
    assert {tag: family(tag) for tag in detected if family(tag) not in families._MEMBERS} == {}


def test_the_table_names_each_language_once_as_it_is_normalised() -> None:
    assert [tag for tag, times in Counter(LISTED).items() if times > 1] == []
    assert [tag for tag in LISTED if normalise(tag).partition("-")[0] != tag] == []
    assert len(LISTED) >= 180


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("nqo", "script:Nkoo"),
        ("cad", "script:Latn"),
        ("zzj-Thai", "script:Thai"),
        ("und-Cyrl", "script:Cyrl"),
        ("und", "und"),
        ("mul", "und"),
        ("zxx", "und"),
        ("", "und"),
        ("not a tag!", "und"),
    ],
)
def test_what_has_no_family_has_its_script_or_nothing(tag: str, expected: str) -> None:
    assert family(tag) == expected


@pytest.mark.parametrize(("raw", "plain"), [("iw", "he"), ("CMN-Hans", "zh"), ("pt_BR", "pt")])
def test_a_tag_that_is_not_normalised_has_the_same_family(raw: str, plain: str) -> None:
    assert family(raw) == family(plain)


@settings(deadline=None, derandomize=True)
@given(
    st.one_of(
        st.text(st.characters(categories=["L", "N", "P", "Cs"])),
        st.from_regex(r"[a-zA-Z]{2,3}([-_][a-zA-Z0-9]{1,8}){0,3}"),
    )
)
def test_no_tag_fails(tag: str) -> None:
    named = family(tag)
    assert named in families._MEMBERS or named == "und" or named.startswith("script:")
