"""Keys of earlier versions, and their names of today, as `utils.config.loading` reads them."""

RENAMED = {
    "train.rays_at_once": "micro_batch",
    "model.*.field.start": "init",
    "model.*.field.color": "../appearance.network",
    "model.*.field.color_activation": "../appearance.activation",
    "model.*.field.view": "../appearance.view",
    "model.*.field.view_encoding": "../appearance.encoding",
    "model.*.field.view_weight": "../appearance.view_weight",
}
RENAMED |= {old.replace("*.", "*.sampler.proposal."): new for old, new in RENAMED.items() if "field" in old}
