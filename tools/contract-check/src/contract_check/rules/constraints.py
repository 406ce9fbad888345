"""Compare the constraints of fields.

The constraint of a request may only be loosened, because an installed SDK keeps sending what was
valid. The constraint of an answer stays the same. If it is loosened, it breaks a reader who relies
on the bound, for example with the width of a column. If it is tightened, it contradicts the
history: entries are written once, and those of the wider rule are still returned.
"""

from collections.abc import Callable, Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from contract_check.constraint import Constraint, constraint_of, rejects_unset
from contract_check.image import Image
from contract_check.violation import Violation

_STRICTER = {"": ("TEXT_NAME", "TEXT_IDENTIFIER"), "TEXT_NAME": ("TEXT_IDENTIFIER",)}
"""For each rule on characters, the rules whose strings are all valid under it."""


def constraint_violations(before: Image, after: Image) -> Iterator[Violation]:
    """Find constraints that break an installed SDK, of fields in both images and of new fields."""
    for name, old in before.messages.items():
        new = after.messages.get(name)
        if new is None:
            continue
        for field in new.fields:
            if field.name in old.fields_by_name:
                yield from _changed(before, after, old.fields_by_name[field.name], field)
            elif name in before.reach.requests:
                yield from _added(after, field)


def _added(after: Image, field: FieldDescriptor) -> Iterator[Violation]:
    if rejects_unset(field, constraint_of(after, field)):
        yield Violation(
            rule="REQUEST_FIELD_ADDED_MUST_BE_SET",
            where=after.where(field.full_name),
            message=f'New field "{field.name}" of request "{_owner(field).name}" must be set, and '
            "installed SDKs do not know it.",
        )


def _changed(
    before: Image, after: Image, old: FieldDescriptor, new: FieldDescriptor
) -> Iterator[Violation]:
    earlier, later = constraint_of(before, old), constraint_of(after, new)
    place = after.where(new.full_name)
    owner = _owner(new)
    # Both images count: a message may be used in another direction now.
    in_requests = owner.full_name in before.reach.requests | after.reach.requests
    in_answers = owner.full_name in before.reach.answers | after.reach.answers
    for difference in _tightened(earlier, later):
        rule = "REQUEST_CONSTRAINT_TIGHTENED" if in_requests else "ANSWER_CONSTRAINT_TIGHTENED"
        yield Violation(rule=rule, where=place, message=_sentence(owner, new, difference))
    if in_answers:
        for difference in _loosened(earlier, later):
            yield Violation(
                rule="ANSWER_CONSTRAINT_LOOSENED",
                where=place,
                message=_sentence(owner, new, difference),
            )


def _owner(field: FieldDescriptor) -> Descriptor:
    owner = field.containing_type
    if owner is None:
        raise TypeError(f"{field.full_name} is an extension")
    return owner


def _sentence(message: Descriptor, field: FieldDescriptor, difference: str) -> str:
    return f'Field "{field.name}" of message "{message.name}": {difference}.'


def _tightened(earlier: Constraint, later: Constraint) -> Iterator[str]:
    if later.minimum > earlier.minimum:
        yield f"minimum raised from {earlier.minimum} to {later.minimum}"
    if later.maximum < earlier.maximum:
        yield f"maximum lowered from {earlier.maximum} to {later.maximum}"
    if later.length_min > earlier.length_min:
        yield f"length_min raised from {earlier.length_min} to {later.length_min}"
    if later.length_max < earlier.length_max:
        yield f"length_max lowered from {earlier.length_max} to {later.length_max}"
    if later.items_min > earlier.items_min:
        yield f"items_min raised from {earlier.items_min} to {later.items_min}"
    if later.items_max < earlier.items_max:
        yield f"items_max lowered from {earlier.items_max} to {later.items_max}"
    if later.pattern and later.pattern != earlier.pattern:
        yield f'pattern "{later.pattern}" required instead of "{earlier.pattern}"'
    if later.required and not earlier.required:
        yield "required now"
    if earlier.text not in {later.text, *_STRICTER.get(later.text, ())}:
        yield f"text changed from {earlier.text or 'any'} to {later.text}"
    yield from _of_map(_tightened, earlier, later)


def _loosened(earlier: Constraint, later: Constraint) -> Iterator[str]:
    if later.minimum < earlier.minimum:
        yield f"minimum lowered from {earlier.minimum} to {later.minimum}"
    if later.maximum > earlier.maximum:
        yield f"maximum raised from {earlier.maximum} to {later.maximum}"
    if later.length_min < earlier.length_min:
        yield f"length_min lowered from {earlier.length_min} to {later.length_min}"
    if later.length_max > earlier.length_max:
        yield f"length_max raised from {earlier.length_max} to {later.length_max}"
    if later.items_min < earlier.items_min:
        yield f"items_min lowered from {earlier.items_min} to {later.items_min}"
    if later.items_max > earlier.items_max:
        yield f"items_max raised from {earlier.items_max} to {later.items_max}"
    if earlier.pattern and not later.pattern:
        yield f'pattern "{earlier.pattern}" dropped'
    if earlier.required and not later.required:
        yield "no longer required"
    if later.text not in {earlier.text, *_STRICTER.get(earlier.text, ())}:
        yield f"text changed from {earlier.text} to {later.text or 'any'}"
    yield from _of_map(_loosened, earlier, later)


def _of_map(
    differences: Callable[[Constraint, Constraint], Iterator[str]],
    earlier: Constraint,
    later: Constraint,
) -> Iterator[str]:
    """Compare the constraints of keys and values, where both fields are maps."""
    if earlier.keys is not None and later.keys is not None:
        yield from (f"keys: {each}" for each in differences(earlier.keys, later.keys))
    if earlier.values is not None and later.values is not None:
        yield from (f"values: {each}" for each in differences(earlier.values, later.values))
