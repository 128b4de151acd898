"""The chat models of UltraFeedback's pool that lie on the hub, and how each is asked.

UltraFeedback (arXiv 2310.01377, section 2.2) has seventeen models; fourteen can be taken from a
folder. Where a name does not say which release was meant, the choice is ours. A layout is the order
in which a chat was trained to see principle and question; the 7B WizardLM sees no principle, as in
the released code.
"""

from alpacafarm_core.responders import ALPACA

LLAMA = "[INST] <<SYS>>\n{principle}\n<</SYS>>\n\n{question} [/INST]"
VICUNA = "{principle} USER: {question} ASSISTANT:"
USER = "{principle}\nUser: {question}\nAssistant:"
MPT = (
    "<|im_start|>system\n{principle}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
STAR = "<|system|>\n{principle}<|end|>\n<|user|>\n{question}<|end|>\n<|assistant|>"
OASST = "<|system|>{principle}<|endoftext|><|prompter|>{question}<|endoftext|><|assistant|>"
PLAIN = "{question}\n\n### Response:"

CHATS = (
    ("llama-2-7b-chat", "meta-llama/Llama-2-7b-chat-hf", LLAMA),
    ("llama-2-13b-chat", "meta-llama/Llama-2-13b-chat-hf", LLAMA),
    ("llama-2-70b-chat", "meta-llama/Llama-2-70b-chat-hf", LLAMA),
    ("ultralm-13b", "openbmb/UltraLM-13b", USER),
    ("ultralm-65b", "openbmb/UltraLM-65b", USER),
    ("wizardlm-7b", "WizardLMTeam/WizardLM-7B-V1.0", PLAIN),
    ("wizardlm-13b", "WizardLMTeam/WizardLM-13B-V1.2", VICUNA),
    ("wizardlm-70b", "WizardLMTeam/WizardLM-70B-V1.0", VICUNA),
    ("vicuna-33b", "lmsys/vicuna-33b-v1.3", VICUNA),
    ("alpaca-7b", "chavinlo/alpaca-native", ALPACA),
    ("falcon-40b-instruct", "tiiuae/falcon-40b-instruct", USER),
    ("mpt-30b-chat", "mosaicml/mpt-30b-chat", MPT),
    ("starchat", "HuggingFaceH4/starchat-beta", STAR),
    ("pythia-12b", "OpenAssistant/oasst-sft-4-pythia-12b-epoch-3.5", OASST),
)
"""Name, folder on the hub, and layout."""
