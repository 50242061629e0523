# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Categories of the objects whose keypoints a model predicts."""
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from ..utils.io import read_json

PERSON = 1  # category of people in COCO
# Words in the keypoint names of people. Animals have paws or hooves.
BODY = ('wrist', 'knee')


def id_key(number: Any) -> Any:
    """Return a category id in the type it has in JSON files."""
    return number.item() if hasattr(number, 'item') else number


def innermost(dataset: Mapping) -> Mapping:
    """Return the config of the innermost dataset inside wrappers."""
    while 'dataset' in dataset or dataset.get('datasets'):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset


def from_annotations(cfg: Config) -> list[Mapping]:
    """Read the categories of a config's test data, if the file exists."""
    dataset = innermost(cfg.test_dataloader.dataset)
    file = dataset.get('ann_file')
    path = file and os.path.join(dataset.get('data_root') or '', file)
    if not (path and path.endswith('.json') and os.path.isfile(path)):
        return []
    content = read_json(path)
    return content.get('categories') or [] if isinstance(content, dict) else []


class Categories:
    """Categories of a dataset: which boxes count, and the ids in results.

    Args:
        own: Categories of the dataset that the model was trained on, as in
            COCO's files; may be empty.
        metainfo: MMPose's description of the keypoints.
        chosen: Names or ids of the categories whose boxes count; by default
            :meth:`select` decides.

    Attributes:
        is_person: Whether the model predicts keypoints of people.
    """

    def __init__(self, own: Sequence[Mapping] = (),
                 metainfo: Mapping | None = None,
                 chosen: Sequence[Any] = ()):
        metainfo = metainfo or {}
        self.own: dict[Any, Mapping] = {
            c['id']: c for c in own if isinstance(c, Mapping) and 'id' in c
        }  # yapf: disable
        self.assumed = 0  # number of boxes without a category
        self.chosen = [str(word).lower() for word in chosen]
        self.seen: dict[Any, Mapping] = {}  # in the files of boxes
        points = ' '.join(metainfo.get('keypoint_name2id', ())).lower()
        names = {self.name_of(c) for c in self.own.values()}
        self.is_person = 'person' in names if self.own else all(
            word in points for word in BODY)
        self.fallback = 'person' if self.is_person else str(
            metainfo.get('dataset_name') or 'object')

    @staticmethod
    def name_of(category: Mapping) -> str:
        return str(category.get('name', '')).lower()

    @property
    def default(self) -> Any:
        """Return the category for boxes that have none."""
        return next(iter(self.own), PERSON)

    def matches(self, number: Any, category: Mapping) -> bool:
        return str(number).lower() in self.chosen or \
            self.name_of(category) in self.chosen

    def choose(self, present: Mapping[Any, Mapping]) -> set[Any]:
        """Return the ids of the categories that the user selected.

        Raises:
            ValueError: If a selected category is not in the file.
        """
        known = {str(k).lower() for k in present}
        known |= {self.name_of(c) for c in present.values()}
        wrong = [word for word in self.chosen if word not in known]
        if wrong:
            valid = ', '.join(f"{k} {c.get('name', '')}".strip()
                              for k, c in list(present.items())[:20])
            raise ValueError(f'--box-categories {wrong[0]}: the boxes have '
                             f'the categories {valid}')
        return {k for k, c in present.items() if self.matches(k, c)}

    def select(self, present: Mapping[Any, Mapping]) -> set[Any]:
        """Return the ids of the categories whose boxes count.

        In order of precedence: the user's selection, categories with
        keypoints, those of the model's own dataset (by name, or by id if
        unnamed), people for a model of people. If none match, all categories.

        Args:
            present: Categories in a file of boxes by id, as far as the file
                describes them.
        """
        self.seen.update(present)
        if self.chosen:
            return self.choose(present)
        named = any(self.name_of(c) for c in present.values())
        own = {self.name_of(c) for c in self.own.values()} - {''}
        rules = [
            {k for k, c in present.items() if c.get('keypoints')},
            {k for k, c in present.items() if self.name_of(c) in own},
            set() if named else {k for k in present if k in self.own},
            {k for k, c in present.items() if self.is_person and (
                self.name_of(c) == 'person' if named else k == PERSON)}
        ]  # yapf: disable
        return next(filter(None, rules), set(present))

    def written(self, number: Any) -> Any:
        """Return the category id to write to results for that of a box.

        It is the id of the same name in the own dataset, if both are known.
        """
        if number is None:
            self.assumed += 1
            return self.default
        name = self.name_of(self.seen.get(number, {}))
        same = [k for k, c in self.own.items()
                if name and self.name_of(c) == name]
        if same:
            return same[0]
        if number not in self.own and len(self.own) == 1:
            return self.default
        return number

    def report(self) -> list[str]:
        """Return the notes about categories for the user."""
        if not self.assumed or len(self.own) < 2:
            return []
        name = self.own[self.default].get('name', '')
        return [f'{self.assumed} results have category {self.default} {name}, '
                f'the first of {len(self.own)}: their boxes have none']

    def describe(self, used: Sequence[Any]) -> list[dict]:
        """Return the categories of results in the format of COCO's files.

        Args:
            used: Ids of all categories in the results.
        """
        ids = [*self.own, *used] or [self.default]
        known = {**self.seen, **self.own}
        return [
            dict(id=number,
                 name=str(known.get(number, {}).get('name') or self.fallback))
            for number in dict.fromkeys(ids)
        ]  # yapf: disable
