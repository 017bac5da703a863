"""The official model in PyTorch: its names, layers and attention masks, written from their maths.

Only what a state dict and an inference pass need.
"""

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """torchvision's residual block of a ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class Encoder(nn.Module):
    """A ResNet-18 without its classifier, [N, 3, H, W] -> [N, 8 width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = width
        for stage in range(4):
            outputs, stride = width << stage, 2 if stage else 1
            blocks = BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = outputs

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(images)).relu())
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.mean((2, 3))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.c_attn(x).chunk(3, dim=-1)
        )
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~visible, -torch.inf)
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(nn.functional.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), MLP(width)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), visible)
        return x + self.mlp(self.ln_2(x))


class ContextTransformer(nn.Module):
    """Tokens [M, S, inputs] to embeddings [M, S, outputs]."""

    def __init__(self, inputs: int, width: int, blocks: int, heads: int, outputs: int) -> None:
        super().__init__()
        self._read_in, self._read_out = nn.Linear(inputs, width), nn.Linear(width, outputs)
        layers = nn.ModuleList([Block(width, heads) for _ in range(blocks)])
        self.transformer = nn.ModuleDict({"h": layers, "ln_f": nn.LayerNorm(width)})

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        visible = torch.ones(length, length).tril().bool()
        odd = torch.arange(1, length, 2)
        visible[odd, odd - 1] = False  # a y token does not see its own x
        x = self._read_in(tokens)
        for block in self.transformer["h"]:
            x = block(x, visible)
        return self._read_out(self.transformer["ln_f"](x))


class OfficialModel(nn.Module):
    """The official model, with the heads that its outputs do not depend on."""

    def __init__(
        self,
        width: int = 64,
        transformer: int = 2048,
        blocks: int = 3,
        heads: int = 4,
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        outputs, actions = 8 * width, 6
        self.enc = Encoder(width)
        self.equiv_linear = nn.Linear(outputs, actions)
        self.predictor = ContextTransformer(outputs + actions, transformer, blocks, heads, outputs)
        self.aug_predictor = _mlp(outputs, hidden, actions)
        self.rel_aug_predictor = _mlp(2 * outputs, 1024, actions)

    @torch.no_grad()
    def forward(self, images: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, embeddings of length 1, and predicted parameters of all tokens.

        Args:
          images: x_1, y_1, x_2, y_2, ... of one context, [2K, 3, H, W].
          actions: [K, 6].
        """
        features = self.enc(images)
        both = torch.stack([actions, torch.zeros_like(actions)], 1).flatten(0, 1)
        h = self.predictor(torch.cat([features, both], 1)[None])[0]
        h = nn.functional.normalize(h, dim=-1)
        return features, h, self.aug_predictor(h)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


def random_model(seed: int, **sizes: int) -> OfficialModel:
    """Return a model in evaluation mode whose every tensor is random.

    Weights are uniform of variance 1 / inputs; biases, norms and running statistics are not the
    constants that they start as.
    """
    with torch.device("meta"):  # without the initial weights, which take longer
        model = OfficialModel(**sizes).eval()
    model.to_empty(device="cpu")
    torch.manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(seed)
        elif tensor.ndim > 1:
            tensor.uniform_(-1, 1).mul_((3 / tensor[0].numel()) ** 0.5)
        elif name.endswith(("running_var", "weight")):
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.uniform_(-0.1, 0.1)
    return model
