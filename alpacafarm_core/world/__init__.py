"""The built-in world: a scale model of instruction following in which the truth is known.

Read in this order: `facts` (what is true), `tasks` (what an instruction asks for), `asking` (the
families of instructions), `understanding` (from a text back to its task), `instructions` (the
splits), `utility` (what people want), `writers` and `answering` (how answers come about), `base`
(the pretrained model). Judges and people stand on top of `utility`.
"""
