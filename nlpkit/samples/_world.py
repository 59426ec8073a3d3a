"""An invented world: people, places, firms, universities, works, dates and numbers drawn from a
seed.

Names are put together from parts, so that there are far more of them than a data set uses (about
600,000 people with Chinese names, 10,000 places, 8,000 titles, millions of firms) and those of
held-out lines are mostly new. The parts avoid the characters that the sentences of the task modules
put beside a name: where a name ends can be learned.
"""

from __future__ import annotations

import random


def _words(text: str) -> list[str]:
    return text.split()


SURNAMES = (
    "赵钱孙李吴郑冯陈褚卫蒋沈韩杨朱秦许吕施孔曹严魏陶姜戚谢邹窦潘葛奚范彭鲁韦苗俞袁柳鲍唐薛雷贺倪汤"
)
LONG_SURNAMES = _words("欧阳 司马 上官 诸葛 慕容 令狐 端木 南宫 皇甫 尉迟 公孙 轩辕")
GIVEN = (
    "翊珩琰玥琬璎瑄瑢璋琮珑玮玦珝禾筠箫筱芮苒茗荔荨莘菡萦葭蓁蔚蕙薏棣柘桁杼栎楸槿樾澍淳湉滢潆濯炘烨煦熹燊"
    "晗晏昀暄旻旸昶峤嵘岱岑彧忻恺惇懿翰骁钰铭锦淼璟倩妍楠栩霖屹峥祺彤珂"
)
SYLLABLES = "阿贝克多尔菲格伊洛米奥帕萨特维亚瓦弗布姆桑罗丁斯蒂赫卡娃恩佩德穆茨"
PLACE_FIRST = "云临清苍沧青白赤碧银澄岚霁汀渚芷蘅荻枫槐梧桦榆棠樟澜泠沅湄漳溟洛沁淇濮泗淮"
PLACE_SECOND = "泽渊崖屿津坪峪垭塘埠堰圩梁坞墩汊漾垛嶂碛湫泊"
PLACE_KINDS = ("", "", "", "市", "县", "镇", "州", "岛", "港")
BRAND_FIRST = "星瑞鼎盛迅捷睦纳聚腾跃鸿铂钛锐恒岩曜宸"
BRAND_SECOND = "澜图驰旭辰芯擎岳帆域维诺拓森蓝赛擢舜翎"
LATIN = _words("vel nor kai zen lu mo tra phi dex qua ori bly sun tek")
INDUSTRIES = _words("科技 传媒 能源 制药 重工 食品 物流 光电 航运 纺织")
FIRM_FORMS = ("有限公司", "股份有限公司", "集团", "公司")
SCHOOL_KINDS = _words("大学 师范大学 理工大学 农业大学 医科大学 美术学院 音乐学院 工程学院")
TITLE_FIRST = _words(
    "沉默 灰色 失落 透明 遥远 迟到 倒悬 燃烧 隐秘 古怪 孤独 无声 遗忘 午夜 黄昏 雪国 深蓝 逆光 锈蚀 漂泊 "
    "琥珀 荆棘 玻璃 纸上 镜中 霓虹 极地 沙漏 风暴 潮汐 月光 蜃楼 尘埃 萤火 盐湖 白鲸 铁锚 麦浪 狐狸 群星"
)
TITLE_SECOND = _words(
    "灯塔 邮差 剧场 迷宫 钟表 旅馆 信使 航线 码头 森林 花园 棋局 列车 候鸟 船歌 来信 暗号 回声 地图 阁楼 "
    "驿站 猎手 拼图 祭典 寓言 渡口 标本 笔记 魔术 面具 铜镜 梯子 乌鸦 骑士 裁缝 琴弦 温室 罗盘 银币 雪橇"
)
TITLE_LINKS = ("", "的", "与", "之")
TITLE_ENDS = ("",) * 12 + ("2", "Ⅱ", "：重逢", "！", "X", " Zero")
CHINESE_DIGITS = "〇一二三四五六七八九"
WIDE_DIGITS = str.maketrans("0123456789", "０１２３４５６７８９")


class World:
    """Draws invented names, one method per kind of name; the same seed draws the same names in the
    same order."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random.random() < probability

    def person(self) -> str:
        """A Chinese name of two to four characters, or one time in seven a transliterated one such
        as 贝洛·萨维特."""
        if self.chance(1 / 7):
            return "·".join(
                self._letters(SYLLABLES, 2, 3) for _ in range(self.random.choice((2, 2, 2, 3)))
            )
        surname = (
            self.random.choice(LONG_SURNAMES) if self.chance(0.1) else self.random.choice(SURNAMES)
        )
        return surname + self._letters(GIVEN, 1, 2)

    def place(self) -> str:
        """A place of two or three characters, such as 云泽 or 澄浦县."""
        choice = self.random.choice
        return choice(PLACE_FIRST) + choice(PLACE_SECOND) + choice(PLACE_KINDS)

    def firm(self, home: str = "") -> str:
        """A firm, such as 星澜科技有限公司 or Norvel集团; `home`, a place, goes in front of it."""
        choice = self.random.choice
        if self.chance(0.15):
            return (
                home
                + (choice(LATIN) + choice(LATIN)).capitalize()
                + choice(INDUSTRIES + list(FIRM_FORMS))
            )
        return (
            home
            + choice(BRAND_FIRST)
            + choice(BRAND_SECOND)
            + choice(INDUSTRIES)
            + choice(FIRM_FORMS)
        )

    def school(self, home: str = "") -> str:
        """A university or academy, named after `home` or after a place of its own."""
        return (home or self.place()) + self.random.choice(SCHOOL_KINDS)

    def book(self) -> str:
        """The title of a work, without its brackets: 沉默的灯塔. Books, films and songs share their
        titles' form."""
        choice = self.random.choice
        if self.chance(0.1):
            return f"{self.random.randint(2, 999)}号{choice(TITLE_SECOND)}"
        return choice(TITLE_FIRST) + choice(TITLE_LINKS) + choice(TITLE_SECOND) + choice(TITLE_ENDS)

    film = song = book

    def date(self) -> str:
        """A day, month or year between 1900 and 2023 in one of several ways of writing it."""
        year, month, day = (
            self.random.randint(1900, 2023),
            self.random.randint(1, 12),
            self.random.randint(1, 28),
        )
        chinese_year = "".join(CHINESE_DIGITS[int(digit)] for digit in str(year))
        forms = (
            f"{year}年{month}月{day}日",
            f"{year}年{month}月",
            f"{year}年",
            f"{year}-{month:02}-{day:02}",
        )
        other = (f"{year}年{month}月{day}日".translate(WIDE_DIGITS), f"{chinese_year}年")
        return self.random.choice(forms + forms + other)

    def number(self) -> str:
        """A quantity without its unit: 3.6万, 120万, 480, ８２００."""
        amount = self.random.randint(12, 999)
        return self.random.choice(
            (f"{amount}万", f"{amount / 10}万", f"{amount}0", f"{amount}00".translate(WIDE_DIGITS))
        )

    def _letters(self, letters: str, shortest: int, longest: int) -> str:
        length = self.random.randint(shortest, longest)
        return "".join(self.random.choice(letters) for _ in range(length))
