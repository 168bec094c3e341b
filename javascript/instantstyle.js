/* Sugar only; the panel works without it: tabs whose reference holds a picture carry a dot. */
(function () {
    "use strict";

    /* The tab's reference, or a file among "More pictures"; not the pictures to remove and to avoid. */
    const REFERENCE =
        '[id$="_image"]:not([id$="_content_image"]):not([id$="_negative_image"]) img, [id$="_more_pictures"] .file-preview';

    function markFilledTabs(units) {
        const buttons = units.querySelectorAll(":scope > .tab-nav > button");
        const tabs = units.querySelectorAll(":scope > .tabitem");
        tabs.forEach((tab, index) => {
            const hasPicture = Boolean(tab.querySelector(REFERENCE));
            buttons[index]?.classList.toggle("instantstyle-filled", hasPicture);
        });
    }

    onAfterUiUpdate(() => gradioApp().querySelectorAll(".instantstyle-units").forEach(markFilledTabs));
})();
