"""The rules that the kit brings, by what they are about."""

from deploy.policy.rule import Rule
from deploy.policy.rules import code, form, keeping, network, trading

RULES: tuple[Rule, ...] = (*form.RULES, *network.RULES, *trading.RULES, *keeping.RULES, *code.RULES)
