"""Which languages learn from one another first: those of one family."""

from __future__ import annotations

from functools import lru_cache

import langcodes
from langcodes.tag_parser import LanguageTagError

from arbitrage.language import UNDETERMINED

# The branch whose languages resemble one another in words and grammar, not the largest family
# that is proven: German says something of Dutch, and next to nothing of Hindi. A creole, or a
# constructed language, stands where most of its words come from. ISO 639 subtags as
# `arbitrage.language.normalise` leaves them; after Glottolog (Hammarström et al.).
_MEMBERS = {
    "albanian": "aae aat sq",
    "algonquian": "alq arp atj bla chy ciw cr mic moe oj pot",
    "arawakan": "cab cni guc",
    "armenian": "hy hyw xcl",
    "atlantic-congo": "dyo ff fuv kss srr tem wo",
    "austroasiatic": "hoc kha km mnw sat unr vi",
    "austronesian": (
        "ace ami ban bbc bew bik bjn bts btx bug ceb ch cjm dtp fil fj gil gor haw hil ho iba id "
        "ilo jv mad mak mdh meo mg mh mi min mrw ms msb na nia nij niu pag pam pau rap rar sas sm "
        "sml su tdt tet tkl to tsg tvl ty war wls"
    ),
    "aymaran": "ay",
    "baltic": "lt ltg lv prg sgs",
    "bantu": (
        "asa bas bem bez cgg cjk dav dua ebu ewo guz hz jmc kam kde kg ki kj kmb koo ksb lg ln "
        "lol loz lu lua lun luy mer mgh nd ng nr nso ny nyn nyo rn rof rw rwk sbp seh sn ss st sw "
        "swb tn toi ts tum umb ve vmw vun xh xog zdj zu"
    ),
    "basque": "eu",
    "berber": "gho kab rif shi shy taq thv tmh tzm zen zgh",
    "celtic": "br cy ga gd gv kw mga sga",
    "chadic": "ckl ha mcn",
    "cushitic": "aa bej byn gax om sid so ssy",
    "dravidian": "brh gon kfa kn kru ml ta tcy te",
    "egyptian": "cop egy",
    "eskimo-aleut": "ale esu ik iu kl",
    "germanic": (
        "af ang bar bi da de djk en enm fo frr fy gmh goh gos got gsw gul hrx hwc icr is jam kri "
        "ksh lb li nb nds nl nn no non pcm pdc pdt pfl pih pis rop sco srm srn stq sv swg tpi vls "
        "vmf vo wae yi zea"
    ),
    "gur": "dag dga gur kbp kus mos",
    "hellenic": "el grc pnt",
    "hmong-mien": "hmn hnj ium mww",
    "indo-aryan": (
        "anp as awa bgc bho bn bns bpy ccp ctg doi dv gbm gom gu hi hif hne kfy khw kok ks lah "
        "mag mai mr mtr mwr ne or pa pi rhg rkt rmn rom sa scl sd si skr syl thr trw ur vah wbr"
    ),
    "iranian": (
        "ae bal bgn bqi ckb fa glk haz kiu ku lki lrc mzn os pal pbt peo ps sdh sgh tg tly zza"
    ),
    "iroquoian": "chr moh one see",
    "japonic": "ja mvi ryu xug",
    "kartvelian": "ka lzz sva xmf",
    "koreanic": "jje ko",
    "kra-dai": "aho blt khb lo nod shn tdd th tts za",
    "kwa": "ada ak any bci gaa nzi",
    "mande": "bib bm dyu kpe man men sus vai",
    "mayan": "acr cak hus ixl kek mam poh quc tzh tzj tzo yua",
    "mongolic": "bua mn mvf xal",
    "na-dene": "apw chp dgr gwi nv srs tli",
    "nilotic": "ach adh alz din kdj kln laj luo mas nus saq teo",
    "northeast-caucasian": "agx aqc av ce dar ddo inh lbe lez rut tab tkr udi",
    "northwest-caucasian": "ab abq ady kbd uby",
    "oto-manguean": "mau maz ote zap",
    "quechuan": "inb qu qug quy qvi",
    "romance": (
        "acf an ast ca cbk co crs egl eo es ext fr frm fro frp fur gcf gcr gl ht ia ie io it kea "
        "la lad lfn lij lld lmo lou mfe mwl nap nov nrf oc pap pcd pms pov pro pt rcf rgn rm ro "
        "rup ruq sc scn sdc sdn vec wa"
    ),
    "saharan": "dzg kr tuq",
    "semitic": (
        "acm acq aeb afb aii ajp akk am apc apd ar arc arq ars ary arz ayl gez har hbo he mt sam "
        "shu syc syr ti tig tru"
    ),
    "sinitic": "cdo cjy czh dng gan hak hsn lzh mnp nan wuu yue zh",
    "slavic": "be bg bs cs csb cu dsb hr hsb mk orv pl ru rue sk sl sr szl uk",
    "songhay": "dje hmb khq ses",
    "tibeto-burman": (
        "adi bo brx cnh ctd dz grt ii kac ksw lbj lep lhu lif lis lus mni my new njo njz sip taj "
        "trp tsj"
    ),
    "tungusic": "eve evn gld mnc sjo",
    "tupian": "gn gub gui gun yrl",
    "turkic": (
        "alt az azb ba chg cjs crh cv dlg gag kaa kim kjh kk krc kum ky nog ota otk sah slr tk tr "
        "tt tyv ug uz uzs"
    ),
    "ubangian": "gba sg zne",
    "uralic": (
        "chm et fi fit fkv hu izh kca koi krl kv liv lud mdf mns mrj myv nio olo se sel sje sma "
        "smj smn sms udm vep vot vro yrk"
    ),
    "uto-aztecan": "hop nah nch nci nhe ood yaq",
    "volta-niger": "bin ee fon guw idu ig igl its nup urh yo",
}
_FAMILIES = {tag: family for family, members in _MEMBERS.items() for tag in members.split()}
_NO_ONE_LANGUAGE = frozenset({UNDETERMINED, "mis", "mul", "zxx"})


@lru_cache(maxsize=4096)
def family(language: str) -> str:
    """The family of a language by its tag; where that is not known, its script.

    >>> [family(tag) for tag in ("nb", "pt-BR", "sr-Latn", "zh-Hant", "arz")]
    ['germanic', 'romance', 'slavic', 'sinitic', 'semitic']
    >>> family("nqo"), family("und-Cyrl"), family("und"), family("!")
    ('script:Nkoo', 'script:Cyrl', 'und', 'und')
    """
    subtag = language.partition("-")[0]
    return _FAMILIES.get(subtag) or _of_tag(language)


def _of_tag(language: str) -> str:
    try:
        tag = langcodes.Language.get(language)
    except LanguageTagError:
        return UNDETERMINED
    for subtag in (tag.language, tag.prefer_macrolanguage().language):
        if subtag in _FAMILIES:
            return _FAMILIES[subtag]
    if not tag.script and (tag.language or UNDETERMINED) in _NO_ONE_LANGUAGE:
        return UNDETERMINED
    return f"script:{tag.maximize().script}"
