"""DuIE 1.0 and 2.0 to `gplinker`: sentences with subject-predicate-object triples.

The version is read off every line. In DuIE 1.0 an object is a string; its `postag` is dropped:

    in   {"postag": [], "text": "《雾灯》是许蓁的小说", "spo_list": [{"predicate": "作者", "object_type": "人物",
          "subject_type": "图书作品", "object": "许蓁", "subject": "雾灯"}]}
    out  {"text": "《雾灯》是许蓁的小说", "spo_list": [{"subject": "雾灯", "predicate": "作者", "object": "许蓁",
          "subject_type": "图书作品", "object_type": "人物"}]}

In DuIE 2.0 an object is a set of slots. `@value` becomes the object and the other slots go, as they
are, to `object_extra`; with `slots` each of them becomes a triple of its own instead:

    in   {"text": "许蓁在《雾灯》演船长", "spo_list": [{"predicate": "饰演", "subject": "许蓁",
          "subject_type": "人物", "object": {"@value": "船长", "inWork": "雾灯"},
          "object_type": {"@value": "人物", "inWork": "影视作品"}}]}
    out  {"text": ..., "spo_list": [{"subject": "许蓁", "predicate": "饰演", "object": "船长",
          "subject_type": "人物", "object_type": "人物", "object_extra": {"inWork": "雾灯"}}]}
    out  {"text": ..., "spo_list": [{"subject": "许蓁", "predicate": "饰演", "object": "船长", ...},
          {"subject": "许蓁", "predicate": "饰演.inWork", "object": "雾灯", ...,
           "object_type": "影视作品"}]}   (slots)

The lines of two models' code are read too, as lists or a line each:

    CasRel      {"text": "《雾灯》是许蓁的小说", "triple_list": [["雾灯", "作者", "许蓁"]]}
    TPLinker    {"text": "《雾灯》是许蓁的小说", "relation_list": [{"subject": "雾灯",
                 "predicate": "作者", "object": "许蓁", "subj_char_span": [1, 3],
                 "obj_char_span": [5, 7]}]}    the spans become `subject_span`, `object_span`

A slot that is empty is no slot. A triple without a subject or an object, and a span that is not
that of its string, are left out and counted. Lines already in the output form (`object_extra`) are
read as well. Other fields are kept. A test line without `spo_list` passes without gold. That a
triple's strings occur in the text is not checked here: `nlpkit data check` reports those that
don't.

Source: Li et al., DuIE: A Large-Scale Chinese Dataset for Information Extraction, NLPCC 2019 (1.0);
the relation extraction task of the Language and Intelligence Challenge 2020 (2.0), where every slot
but `@value` may be absent.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from data_recipes import Record, convert_each, counting, field, has_gold, objects, run
from data_recipes._raw import span_of, without
from nlpkit.errors import RecordError, shown

MAIN_SLOT = "@value"
TPLINKER_SPANS = {"subj_char_span": "subject", "obj_char_span": "object"}

BOTH = [
    "丈夫", "上映时间", "专业代码", "主持人", "主演", "主角", "人口数量", "作曲", "作者", "作词", "修业年限",
    "出品公司", "创始人", "制片人", "占地面积", "号", "嘉宾", "国籍", "妻子", "官方语言", "导演", "总部地点",
    "成立日期", "所在城市", "所属专辑", "改编自", "朝代", "歌手", "母亲", "毕业院校", "气候", "注册资本", "海拔",
    "父亲", "祖籍", "简称", "编剧", "董事长", "邮政编码", "面积", "首都",
]  # fmt: skip
"""The relations that DuIE 1.0 and 2.0 both have."""
ONLY_1 = ["出版社", "出生地", "出生日期", "字", "民族", "目", "身高", "连载网站"]
ONLY_2 = ["主题曲", "代言人", "校长", "票房", "获奖", "配音", "饰演"]
SLOTS = [
    "上映时间.inArea",
    "票房.inArea",
    "获奖.inWork",
    "获奖.onDate",
    "获奖.period",
    "配音.inWork",
    "饰演.inWork",
]
"""Of DuIE 2.0, with `slots`."""

SEEN_SHARE = 0.001
"""`complete_for="seen"` takes a predicate with at least this share of all triples; fewer are slips
of annotation."""


def convert(
    paths: Sequence[str], *, slots: bool = False, complete_for: str | Sequence[str] = ()
) -> Iterator[Record]:
    """The lines of DuIE files as `gplinker` records, in order.

    Args:
        paths: raw files; none, or `-`, is stdin.
        slots: the further slots of an object become triples with the predicate `饰演.inWork`.
        complete_for: every line with gold gets `predicates`, the relations that it is completely
            annotated for: its silence on the others then means "not annotated", not "no".
            Predicates as a list or between commas; or `seen` for those with at least 0.1 % of this
            input's triples, which reads the whole input first; or `version`, where lines of 1.0 and
            2.0 are mixed: the relations of the version that a line's own relations or slots tell,
            and where they tell none, those that both versions have. The triples of other relations
            stay.

    Raises DataError with `file:line` at the first line that is not DuIE.
    """
    with counting() as counts:
        by_version = complete_for == "version"
        records = convert_each(paths, _record, slots, by_version, counts)
        yield from records if by_version else _completed(records, complete_for)


def _completed(records: Iterator[Record], complete_for: str | Sequence[str]) -> Iterator[Record]:
    """The records with the relations that they are complete for."""
    if complete_for == "seen":
        kept = list(records)
        records, complete_for = iter(kept), _seen(kept)
    predicates = (
        [name for name in complete_for.split(",") if name]
        if isinstance(complete_for, str)
        else [*complete_for]
    )
    for record in records:
        yield (
            {**record, "predicates": predicates} if predicates and "spo_list" in record else record
        )


def _seen(records: list[Record]) -> list[str]:
    """The predicates with at least SEEN_SHARE of the triples, the most frequent first."""
    counts = Counter(
        triple["predicate"] for record in records for triple in record.get("spo_list", ())
    )
    return [
        predicate
        for predicate, count in counts.most_common()
        if count >= SEEN_SHARE * counts.total()
    ]


def _record(raw: Record, slots: bool, by_version: bool, counts: Counter[str]) -> Record:
    text = field(raw, "text", str)
    if "triple_list" in raw:
        raw = _renamed(raw, "triple_list", [_of_casrel(t) for t in field(raw, "triple_list", list)])
    elif "relation_list" in raw:
        found = [_of_tplinker(value, text, counts) for value in objects(raw, "relation_list")]
        raw = _renamed(raw, "relation_list", found)
    record = {name: value for name, value in raw.items() if name != "postag"}
    if has_gold(raw, "spo_list"):
        triples: list[Record] = []
        for triple in field(raw, "spo_list", list):
            triples += _triples(triple, slots, counts)
        record["spo_list"] = triples
        if by_version:
            record["predicates"] = _of_version(raw["spo_list"], slots)
    return record


def _renamed(raw: Record, name: str, triples: list[Record]) -> Record:
    """The record with its triples as `spo_list`, in the place of their field."""
    return {"spo_list" if key == name else key: raw[key] for key in raw} | {"spo_list": triples}


def _of_casrel(value: Any) -> Record:
    is_triple = isinstance(value, list) and len(value) == 3
    if not is_triple or not all(isinstance(part, str) for part in value):
        raise RecordError(
            f'field "triple_list": expected [subject, predicate, object], got {shown(value)}'
        )
    return dict(zip(("subject", "predicate", "object"), value, strict=True))


def _of_tplinker(value: Record, text: str, counts: Counter[str]) -> Record:
    triple = without(value, *TPLINKER_SPANS)
    for name, role in TPLINKER_SPANS.items():
        if name not in value:
            continue
        span = field(value, name, list)
        if len(span) == 2 and text[span_of(text, *span)[0] : span[1]] == value.get(role):
            triple[f"{role}_span"] = span
        else:
            counts["spans that are not those of their string: left out"] += 1
    return triple


def _of_version(triples: list[Record], slots: bool) -> list[str]:
    """The relations of the version that a line's triples, as they came, belong to; else those of
    both versions."""
    found = {triple["predicate"] for triple in triples}
    is_1 = not found.isdisjoint(ONLY_1)
    has_slots = any(
        "object_extra" in triple or isinstance(triple["object"], dict) for triple in triples
    )
    is_2 = has_slots or not found.isdisjoint(ONLY_2)
    return BOTH + (ONLY_1 if is_1 else []) + ((ONLY_2 + (SLOTS if slots else [])) if is_2 else [])


def _triples(raw: Any, slots: bool, counts: Counter[str]) -> list[Record]:
    """The triple, and with `slots` one more for each further slot of its object."""
    extra = _slots(raw, "object")
    if "object_extra" in raw:
        field(raw, "object_extra", dict)
        extra.update(_slots(raw, "object_extra"))
    types = _slots(raw, "object_type") if "object_type" in raw else {}
    main = extra.pop(MAIN_SLOT, None)
    if main is None:
        raise RecordError(f'field "object": missing slot "{MAIN_SLOT}"')
    extra = {slot: text for slot, text in extra.items() if text.strip()}
    subject = field(raw, "subject", str)
    predicate = field(raw, "predicate", str)
    if not subject.strip() or not main.strip():
        counts["triples without a subject or an object: left out"] += 1
        return []
    spans = {name: raw[name] for name in ("subject_span", "object_span") if name in raw}
    subject_type = (
        {"subject_type": field(raw, "subject_type", str)} if "subject_type" in raw else {}
    )

    def triple(predicate: str, object_: str, slot: str) -> Record:
        object_type = {"object_type": types[slot]} if slot in types else {}
        return {
            "subject": subject,
            "predicate": predicate,
            "object": object_,
            **subject_type,
            **object_type,
        }

    if slots:
        return [
            triple(predicate, main, MAIN_SLOT) | spans,
            *(triple(f"{predicate}.{s}", o, s) for s, o in extra.items()),
        ]
    return [triple(predicate, main, MAIN_SLOT) | ({"object_extra": extra} if extra else {}) | spans]


def _slots(raw: Any, name: str) -> dict[str, str]:
    """An object or object type by slot; in DuIE 1.0, a string, it is the main slot."""
    value = raw.get(name) if isinstance(raw, dict) else None
    slots = value if isinstance(value, dict) else {MAIN_SLOT: field(raw, name, str)}
    for slot, text in slots.items():
        if not isinstance(text, str):
            raise RecordError(
                f'field "{name}", slot "{slot}": expected str, got {type(text).__name__}'
            )
    return dict(slots)


if __name__ == "__main__":
    sys.exit(run(convert))
